"""What builds, checks and documents gridmm; nothing here is part of the package."""
