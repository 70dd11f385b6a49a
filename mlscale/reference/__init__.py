"""References that production is compared with: a bounded sketch for each column. Needs numpy only."""
