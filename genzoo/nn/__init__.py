"""Building blocks of networks: patches, embeddings, attention, modulation, state-space mixers, counting."""
