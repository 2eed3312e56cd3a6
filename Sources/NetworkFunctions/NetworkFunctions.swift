// NetworkFunctions
