"""A model as layers, mixers and hops: loading, preprocessing, tracing."""
