import Yams

/// libyaml's complaints, as one line that names the place.
extension ConfigurationError {
  init(file: String, yaml error: any Error) {
    guard let error = error as? YamlError else {
      self.init(file: file, message: "\(error)")
      return
    }
    switch error {
    case .composer(_, "but found another document", let mark, _):
      self.init(file: file, line: mark.line, message: "a second document begins here; one file holds one")
    case .composer(_, "found undefined alias", let mark, _):
      self.init(file: file, line: mark.line, message: "anchors (&) and aliases (*) are not read; write the value out")
    // Where the file ends is not where the quote or bracket was forgotten.
    case .scanner(let context?, let problem, _, _) where problem.contains("end of stream"):
      self.init(file: file, line: context.mark.line, message: "not YAML: \(problem) \(context.text)")
    case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
      .composer(let context, let problem, let mark, _):
      let circumstance = context.map { context in
        let place = context.mark.line == mark.line || context.mark.line == 0 ? "" : " that begins in line \(context.mark.line)"
        return " \(context.text)\(place)"
      }
      self.init(file: file, line: mark.line, message: "not YAML: \(problem)\(circumstance ?? "")")
    case .duplicatedKeysInMapping(let keys, let context):
      self.init(file: file, line: context.mark.line, message: "the key '\(keys.first ?? "")' is written twice, first here")
    case .reader(let problem, _, _, _):
      self.init(file: file, message: "not YAML: \(problem)")
    case .memory:
      self.init(file: file, message: "not enough memory to read it")
    case .no, .writer, .emitter, .representer, .dataCouldNotBeDecoded:
      self.init(file: file, message: "not YAML")
    }
  }
}
