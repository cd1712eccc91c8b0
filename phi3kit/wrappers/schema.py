"""The generation options as MLflow's schemas, derived from their declaration."""

from mlflow.types.schema import AnyType, ColSpec, DataType, Object, ParamSchema, ParamSpec, Property

from phi3kit.generation.options import Option, declared

_TYPES = {int: DataType.long, float: DataType.double, str: DataType.string}


def option_columns() -> list[ColSpec]:
    """Return one optional column for each option, for requests that bring their own."""
    return [ColSpec(_nullable(option), option.name, required=False) for option in declared()]


def option_object() -> Object:
    """Return an object with the options as its optional fields."""
    return Object([Property(option.name, _nullable(option), required=False) for option in declared()])


def _nullable(option: Option) -> DataType | AnyType:
    """MLflow's type for an optional field in which a request may send null, as OpenAI's clients do.

    MLflow takes no null for a whole number, and no single text for a list: there the field may hold anything, and
    `Options` says what is allowed.
    """
    return AnyType() if option.many or option.type is int else _TYPES[option.type]


def option_params() -> ParamSchema:
    """Return one param for each option, with its default, for calls that bring one set for all rows."""
    specs = []
    for option in declared():
        default, shape = (list(option.default), (-1,)) if option.many else (option.default, None)
        specs.append(ParamSpec(option.name, _TYPES[option.type], default, shape))
    return ParamSchema(specs)
