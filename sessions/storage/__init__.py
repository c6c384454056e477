"""session-storage: verifies, persists, seals, proves and anchors. It holds no key and cannot open an envelope."""
