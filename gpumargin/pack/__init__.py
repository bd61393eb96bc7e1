"""Tables to arrays: contracts, canonical legs, padded buckets. numpy and pyarrow only."""
