"""Records to model input: schema, decode, vectorize, infer."""
