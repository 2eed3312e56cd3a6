// DPDKPorts
