"""The text of a .proto file to the descriptor that Protobuf's own library takes.

Types keep the names that stand in the text: the library's pool resolves them by Protobuf's rules of scope. Options are
left out, but for the few that say how bytes are read.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from worker.errors import ErrorCode, FatalError, Hint, RecordError

MAX_TEXT = 1 << 20  # characters; the parser reads about 100 KB a second


def file_descriptor(name: str, text: str) -> Any:
    """A FileDescriptorProto. name: by which other files import it. RecordError where the text is no .proto file."""
    try:
        from google.protobuf.descriptor_pb2 import FileDescriptorProto
        from proto_schema_parser import ast
        from proto_schema_parser.parser import Parser
    except ImportError as error:
        raise FatalError("reading Protobuf needs its packages", hint=Hint.INSTALL_REGISTRY) from error
    if len(text) > MAX_TEXT:
        raise RecordError(ErrorCode.UNKNOWN_SCHEMA, f"its text has more than {MAX_TEXT:,} characters")
    try:
        parsed = Parser(setup_lexer=_refuse_errors, setup_parser=_refuse_errors).parse(text)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise RecordError(ErrorCode.UNKNOWN_SCHEMA, f"the schema is no .proto file: {error}") from None
    file = FileDescriptorProto(name=name, syntax=parsed.syntax or ("editions" if parsed.edition else "proto2"))
    if parsed.edition:
        file.edition = int(parsed.edition) if str(parsed.edition).isdigit() else 0
    _fill(file, parsed.file_elements, ast)
    return file


def _refuse_errors(recognizer: Any) -> None:
    """What is no .proto file is a ValueError; by itself ANTLR prints what it does not understand, and goes on."""
    from antlr4.error.ErrorListener import ErrorListener

    class Refusal(ErrorListener):  # type: ignore[misc]  # it ships no types
        def syntaxError(self, _: Any, __: Any, line: int, column: int, why: str, *___: Any) -> None:  # noqa: N802
            raise ValueError(f"line {line}:{column}: {why[:200]}")

    recognizer.removeErrorListeners()
    recognizer.addErrorListener(Refusal())


def _fill(file: Any, elements: list[Any], ast: Any) -> None:
    maker = _Maker(ast, proto3=file.syntax == "proto3")
    for element in elements:
        if isinstance(element, ast.Package):
            file.package = element.name
        elif isinstance(element, ast.Import):
            if element.public:
                file.public_dependency.append(len(file.dependency))
            file.dependency.append(element.name)
        elif isinstance(element, ast.Message):
            maker.message(file.message_type.add(), element)
        elif isinstance(element, ast.Enum):
            maker.enum(file.enum_type.add(), element)


_SCALARS: Final[Mapping[str, int]] = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "fixed64": 6,
    "fixed32": 7,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
    "sfixed32": 15,
    "sfixed64": 16,
    "sint32": 17,
    "sint64": 18,
}
_GROUP, _MESSAGE = 10, 11
_LABELS: Final[Mapping[str, int]] = {"OPTIONAL": 1, "REQUIRED": 2, "REPEATED": 3}


class _Maker:
    """Fills descriptors in from what the parser has read. ast: the parser's module of elements."""

    def __init__(self, ast: Any, *, proto3: bool) -> None:
        self._ast = ast
        self._proto3 = proto3

    def message(self, descriptor: Any, message: Any) -> None:
        """Of nested types those that the text declares come first: a record counts their places."""
        descriptor.name = message.name
        later: list[Callable[[], None]] = []
        optional: list[Any] = []
        for element in message.elements:
            self._element(descriptor, element, later, optional)
        for make in later:
            make()
        for field in optional:  # each in a oneof of its own, behind the others: so is presence told in proto3
            field.proto3_optional = True
            field.oneof_index = len(descriptor.oneof_decl)
            descriptor.oneof_decl.add(name=f"_{field.name}")

    def _element(self, descriptor: Any, element: Any, later: list[Callable[[], None]], optional: list[Any]) -> None:
        ast = self._ast
        if isinstance(element, ast.Message):
            self.message(descriptor.nested_type.add(), element)
        elif isinstance(element, ast.Enum):
            self.enum(descriptor.enum_type.add(), element)
        elif isinstance(element, ast.Field):
            field = self._field(descriptor, element)
            if self._proto3 and element.cardinality == ast.FieldCardinality.OPTIONAL:
                optional.append(field)
        elif isinstance(element, ast.MapField):
            later.append(lambda: self._map(descriptor, element))
        elif isinstance(element, ast.Group):
            self._group(descriptor, element)
        elif isinstance(element, ast.OneOf):
            self._oneof(descriptor, element)

    def _oneof(self, descriptor: Any, oneof: Any) -> None:
        index = len(descriptor.oneof_decl)
        descriptor.oneof_decl.add(name=oneof.name)
        for part in oneof.elements:
            if isinstance(part, self._ast.Field):
                self._field(descriptor, part).oneof_index = index
            elif isinstance(part, self._ast.Group):
                self._group(descriptor, part).oneof_index = index

    def _field(self, descriptor: Any, element: Any) -> Any:
        field = descriptor.field.add(name=element.name, number=element.number, label=_label(element))
        _set_type(field, element.type)
        return field

    def _group(self, descriptor: Any, element: Any) -> Any:
        self.message(descriptor.nested_type.add(), element)
        name = element.name
        return descriptor.field.add(
            name=name.lower(), number=element.number, label=_label(element), type=_GROUP, type_name=name
        )

    def _map(self, descriptor: Any, element: Any) -> None:
        name = "".join(part[:1].upper() + part[1:] for part in element.name.split("_")) + "Entry"
        entry = descriptor.nested_type.add(name=name)
        entry.options.map_entry = True
        for number, (part, kind) in enumerate((("key", element.key_type), ("value", element.value_type)), 1):
            _set_type(entry.field.add(name=part, number=number, label=1), kind)
        descriptor.field.add(name=element.name, number=element.number, label=3, type=_MESSAGE, type_name=name)

    def enum(self, descriptor: Any, enum: Any) -> None:
        """Several names for one number are allowed where the text says so."""
        descriptor.name = enum.name
        for element in enum.elements:
            if isinstance(element, self._ast.EnumValue):
                descriptor.value.add(name=element.name, number=int(element.number))
            elif isinstance(element, self._ast.Option) and element.name == "allow_alias":
                descriptor.options.allow_alias = str(element.value).lower() == "true"


def _label(element: Any) -> int:
    return _LABELS[element.cardinality.value] if element.cardinality is not None else 1


def _set_type(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type_name = kind  # a message or an enum: whichever the pool finds
