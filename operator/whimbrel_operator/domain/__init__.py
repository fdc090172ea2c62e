"""Pure decisions: phases, gates, plan, conditions. No I/O, no clock, no Kubernetes."""
