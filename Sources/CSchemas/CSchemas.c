// CSchemas
