"""Pure builders of what a runtime puts into the world: task files here, Jobs and Roles for a cluster."""
