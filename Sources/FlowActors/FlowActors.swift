// FlowActors
