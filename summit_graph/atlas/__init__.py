"""The atlas: the counts of a data set on disk, as Parquet tables that need no server to read."""
