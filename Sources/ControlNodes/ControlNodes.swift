// ControlNodes
