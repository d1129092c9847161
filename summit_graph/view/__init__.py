"""Pictures of an atlas: figures, notebook widgets and pages, all with one layout and look."""
