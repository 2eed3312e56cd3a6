// ModuleGraphs
