"""SPANN: posting lists on disk (Chen et al., 2021), updated in place (SPFresh, Xu et al., 2023)."""
