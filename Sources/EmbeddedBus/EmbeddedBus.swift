// EmbeddedBus
