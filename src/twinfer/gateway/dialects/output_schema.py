"""What a client wants an answer to be, and schemas of strict tools: refused at once where they are not supported."""

from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.text.conversation import JsonOutput, Tool
from twinfer.gateway.text.schema import check_schema

FORMATS = ("text", "json_object", "json_schema")
_NAME = r"[a-zA-Z0-9_-]{1,64}"


def schema_output(schema: object, where: str) -> JsonOutput:
    """An answer held to a schema.

    Args:
        schema: as the client wrote it.
        where: its place in the request.

    Raises:
        InvalidRequest: it is not of the supported part of JSON Schema.
    """
    return JsonOutput(check_schema(schema, where), where)


def read_response_format(field: Reader | None, *, flat: bool = False) -> JsonOutput | None:
    """OpenAI's ``response_format``; ``None`` for text.

    Args:
        flat: a schema stands beside the type, as in Responses, rather than in an object of its own.
    """
    if field is None or (kind := field.need("type").one_of(FORMATS)) == "text":
        return None
    if kind == "json_object":
        return JsonOutput({"type": "object"}, field.path)
    named = field if flat else field.need("json_schema")
    named.need("name").string(pattern=_NAME)
    if (description := named.get("description")) is not None:
        description.string()
    if (strict := named.get("strict")) is not None:
        strict.boolean()
    schema = named.need("schema")
    return schema_output(schema.mapping(), schema.path)


def check_tool(tool: Tool, parameters: Reader | None) -> Tool:
    """The same tool; if it is strict, only with a schema that its calls can be held to."""
    if tool.strict and parameters is not None:
        check_schema(tool.parameters, parameters.path)
    return tool
