"""Validators of what is published, built once: building one costs more than a thousand validations."""

from jsonschema import Draft202012Validator

from devtools.contracts import AlertDocument, ScoreDocument, json_schema

VALID_ALERT = Draft202012Validator(json_schema(AlertDocument))
VALID_SCORE = Draft202012Validator(json_schema(ScoreDocument))
