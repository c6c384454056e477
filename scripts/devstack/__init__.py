"""The development stack: a real mongod, a real EVM node and both services on free loopback ports."""
