"""The atlas in Neo4j: a local server, loading, Cypher queries, and the answers of `GraphDB`."""
