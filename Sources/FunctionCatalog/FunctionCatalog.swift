// FunctionCatalog
