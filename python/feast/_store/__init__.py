"""What a feature store can do, a file per idea; `feast.FeatureStore` has it all. Each method turns its arguments into what
the engine takes, calls it once, and gives back what users know."""
