"""The generation options as MLflow's schemas, derived from their declaration."""

from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec

from phi3kit.generation.options import declared

_TYPES = {int: DataType.long, float: DataType.double, str: DataType.string}


def option_columns() -> list[ColSpec]:
    """Return one optional column for each option, for requests that bring their own."""
    return [
        ColSpec(Array(_TYPES[option.type]) if option.many else _TYPES[option.type], option.name, required=False)
        for option in declared()
    ]


def option_params() -> ParamSchema:
    """Return one param for each option, with its default, for calls that bring one set for all rows."""
    specs = []
    for option in declared():
        default, shape = (list(option.default), (-1,)) if option.many else (option.default, None)
        specs.append(ParamSpec(option.name, _TYPES[option.type], default, shape))
    return ParamSchema(specs)
