"""Where packs are kept: one contract (`base`), several stores."""
