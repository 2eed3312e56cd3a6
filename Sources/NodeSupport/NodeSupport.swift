// NodeSupport
