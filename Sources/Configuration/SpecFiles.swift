import ControlMessages

/// The configuration files of the project, each read whole or refused at its first error.
///
/// The meaning of every key is read where its value is defined (`ControlMessages`, the function catalog). Here
/// their complaints get the name of the file.

/// What `nfvctl apply` takes. The settings of the chain's functions are carried along; `Catalog.validate` reads them.
public func loadClusterSpec(_ path: String) throws(ConfigurationError) -> ClusterSpec {
  try clusterSpec(YAMLFile.settings(path: path), file: path)
}

/// `chain:` and `flows:` alone: what `nfvactor process --chain` takes.
public func loadChainSpec(_ path: String) throws(ConfigurationError) -> ServiceChainSpec {
  try chainSpec(YAMLFile.settings(path: path), file: path)
}

/// What `nfvctl policy activate` takes.
public func loadScalingPolicy(_ path: String) throws(ConfigurationError) -> ScalingPolicy {
  try scalingPolicy(YAMLFile.settings(path: path), file: path)
}

/// What `nfvactor agent --config` takes.
public func loadAgentConfiguration(_ path: String) throws(ConfigurationError) -> AgentConfiguration {
  try agentConfiguration(YAMLFile.settings(path: path), file: path)
}

public func clusterSpec(_ settings: Settings, file: String) throws(ConfigurationError) -> ClusterSpec {
  do throws(SettingsError) { return try ClusterSpec(reader: SettingsReader(settings)) } catch {
    throw ConfigurationError(file: file, error)
  }
}

public func chainSpec(_ settings: Settings, file: String) throws(ConfigurationError) -> ServiceChainSpec {
  do throws(SettingsError) {
    let reader = SettingsReader(settings)
    try reader.allow(["chain", "flows"])
    return try ServiceChainSpec(reader: reader)
  } catch {
    throw ConfigurationError(file: file, error)
  }
}

public func scalingPolicy(_ settings: Settings, file: String) throws(ConfigurationError) -> ScalingPolicy {
  do throws(SettingsError) { return try ScalingPolicy(reader: SettingsReader(settings)) } catch {
    throw ConfigurationError(file: file, error)
  }
}

public func agentConfiguration(_ settings: Settings, file: String) throws(ConfigurationError) -> AgentConfiguration {
  do throws(SettingsError) { return try AgentConfiguration(reader: SettingsReader(settings)) } catch {
    throw ConfigurationError(file: file, error)
  }
}
