// Packet builders
