"""chunk-processor: compresses, seals and hands on chunks; holds the keys. It never sees the database or the chain."""
