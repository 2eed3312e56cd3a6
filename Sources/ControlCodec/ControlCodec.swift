// ControlCodec
