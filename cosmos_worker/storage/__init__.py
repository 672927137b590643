"""Files on volumes: addresses, atomic writes, locks, completion markers, kinds and digests of files."""
