"""From a class's counts to its attribution graph: contraction, PageRank, selection."""
