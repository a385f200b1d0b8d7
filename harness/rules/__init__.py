"""PromQL and rule files as syntax trees."""
