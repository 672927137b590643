"""The resource PostTrainingJob: its fields, their validation, the CRD and the reference pages made from them."""
