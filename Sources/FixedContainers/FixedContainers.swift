// FixedContainers
