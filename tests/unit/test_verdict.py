"""What a check says, as text, as HTML and as data; and that a learner's code can raise what it likes."""

import json

import pytest

from phi3kit.workbook.check.verdict import Verdict, Wrong, called, exercise, shown
from phi3kit.workbook.results import MEDIA_TYPE

RIGHT = Verdict("greet", ("it greets", "politely"), 2)
WRONG = Verdict("greet", ("it greets",), 2, came="Oi!", expected="Good day.", hint="Say it to your grandmother.")


@exercise(of=2)
def greet(my_greeting):
    """A check of two steps."""
    came = called(my_greeting, "Ada", expected="Good day, Ada.", hints={KeyError: "No keys are needed."})
    if "Ada" not in came:
        raise Wrong(came, "a greeting with the name in it", "Use what your function is given.")
    yield "the name is in it"
    if not came.startswith("Good day"):
        raise Wrong(came, "Good day, Ada.", "More politely.")
    yield "it is polite"


def raising(error):
    def code(*given):
        raise error

    return code


def test_all_right_says_what_is_right():
    assert greet(lambda name: f"Good day, {name}.") == Verdict("greet", ("the name is in it", "it is polite"), 2)
    assert RIGHT.passed
    assert str(RIGHT).splitlines() == ["Right: 2 of 2", "  right:     it greets", "  right:     politely"]


def test_the_first_thing_wrong_says_what_came_what_was_expected_and_where_to_look():
    verdict = greet(lambda name: f"Oi, {name}!")
    assert verdict == Verdict("greet", ("the name is in it",), 2, "Oi, Ada!", "Good day, Ada.", "More politely.")
    assert not verdict.passed
    assert str(WRONG).splitlines() == [
        "Not yet: 1 of 2",
        "  right:     it greets",
        "  came:      Oi!",
        "  expected:  Good day.",
        "  hint:      Say it to your grandmother.",
    ]


def test_a_check_keeps_its_name_for_whoever_looks_it_up():
    assert (greet.__name__, greet.__doc__) == ("greet", "A check of two steps.")


def test_what_a_learner_wrote_is_text_in_html_and_never_markup():
    attack = "<script>alert(1)</script>\n<img src=x onerror='alert(2)'>&"
    told = Verdict("greet", (attack,), 2, attack, attack, attack)._repr_mimebundle_()["text/html"]
    assert "<script" not in told
    assert "<img" not in told
    assert told.count("&lt;script&gt;alert(1)&lt;/script&gt;\n&lt;img src=x onerror=&#x27;alert(2)&#x27;&gt;&amp;") == 4


@pytest.mark.parametrize(("verdict", "border"), [(RIGHT, "solid"), (WRONG, "dashed")], ids=["right", "wrong"])
def test_html_says_in_words_and_shape_what_it_says_in_colour_and_sets_no_text_colour(verdict, border):
    told = verdict._repr_mimebundle_()["text/html"]
    assert str(verdict).splitlines()[0] in told
    assert f"4px {border} " in told
    assert told.count('scope="row"') == len(str(verdict).splitlines()) - 1
    assert not any(style.strip().startswith("color") for style in told.replace('"', ";").split(";"))


def test_a_notebook_keeps_the_verdict_as_data_beside_what_it_shows():
    bundle = WRONG._repr_mimebundle_(include=None, exclude=None)
    assert bundle.keys() == {"text/plain", "text/html", MEDIA_TYPE}
    assert bundle["text/plain"] == str(WRONG)
    assert json.loads(json.dumps(bundle[MEDIA_TYPE])) == {
        "check:greet": {
            "right": ["it greets"],
            "of": 2,
            "came": "Oi!",
            "expected": "Good day.",
            "hint": "Say it to your grandmother.",
        }
    }
    assert RIGHT.told() == {"right": ["it greets", "politely"], "of": 2}


@pytest.mark.parametrize(
    ("error", "came", "hint"),
    [
        (KeyError("name"), "KeyError: 'name'", "No keys are needed."),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero", "The message says"),
        (ValueError("x" * 5000), "ValueError: xxx", "The message says"),
    ],
)
def test_what_a_learners_code_raises_is_what_came(error, came, hint):
    verdict = greet(raising(error))
    assert verdict.came.startswith(came)
    assert len(verdict.came) < 250
    assert verdict.expected == "Good day, Ada."
    assert verdict.hint.startswith(hint)
    assert verdict.right == ()


@pytest.mark.parametrize("value", [None, "a text", 3, ...])
def test_what_is_no_function_is_what_came(value):
    verdict = greet(value)
    assert "which is no function" in verdict.came
    assert "`def`" in verdict.hint


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_whoever_interrupts_a_learners_code_is_obeyed(error):
    with pytest.raises(error):
        greet(raising(error()))


def test_a_value_is_shown_short_and_a_text_as_it_stands():
    assert shown('say "hi"\n') == 'say "hi"\n'
    assert shown(["a", 1]) == "['a', 1]"
    assert shown("x" * 200) == "x" * 200
    assert shown("x" * 201) == "x" * 197 + "..."
