"""A verdict as text, as HTML and as data; and whatever a learner's code raises."""

import json
import threading
import time

import pytest

from phi3kit.workbook.exercises.check.verdict import Verdict, Wrong, call, exercise, shorten
from phi3kit.workbook.running.results import MEDIA_TYPE

RIGHT = Verdict("greet", ("it greets", "politely"), 2)
WRONG = Verdict("greet", ("it greets",), 2, got="Oi!", expected="Good day.", hint="Say it to your grandmother.")


@exercise(steps=2)
def greet(my_greeting):
    """A check of two steps."""
    text = call(my_greeting, "Ada", expected="Good day, Ada.", hints={KeyError: "No keys are needed."})
    if "Ada" not in text:
        raise Wrong(text, "a greeting with the name in it", "Use your function's argument.")
    yield "the name is in it"
    if not text.startswith("Good day"):
        raise Wrong(text, "Good day, Ada.", "More politely.")
    yield "it is polite"


def raising(error):
    def code(*arguments):
        raise error

    return code


def html(verdict):
    return verdict._repr_mimebundle_()["text/html"]


def test_a_right_answer_gets_every_sentence():
    assert greet(lambda name: f"Good day, {name}.") == Verdict("greet", ("the name is in it", "it is polite"), 2)


def test_the_first_wrong_step_gets_got_expected_and_hint():
    verdict = greet(lambda name: f"Oi, {name}!")
    assert verdict == Verdict("greet", ("the name is in it",), 2, "Oi, Ada!", "Good day, Ada.", "More politely.")


def test_a_verdict_has_passed_when_every_step_is_right():
    assert (RIGHT.passed, WRONG.passed) == (True, False)


def test_the_text_of_a_right_verdict_lists_its_steps():
    assert str(RIGHT).splitlines() == ["Right: 2 of 2", "  right:     it greets", "  right:     politely"]


def test_the_text_of_a_wrong_verdict_adds_its_mistake():
    assert str(WRONG).splitlines() == [
        "Not yet: 1 of 2",
        "  right:     it greets",
        "  got:       Oi!",
        "  expected:  Good day.",
        "  hint:      Say it to your grandmother.",
    ]


def test_a_check_keeps_its_name_and_docstring():
    assert (greet.__name__, greet.__doc__) == ("greet", "A check of two steps.")


def test_html_escapes_what_a_learner_wrote():
    attack = "<script>alert(1)</script>\n<img src=x onerror='alert(2)'>&"
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;\n&lt;img src=x onerror=&#x27;alert(2)&#x27;&gt;&amp;"
    page = html(Verdict("greet", (attack,), 2, attack, attack, attack))
    assert (page.count(escaped), page.count("<script"), page.count("<img")) == (4, 0, 0)


def test_html_marks_code_in_our_sentences_only():
    page = html(Verdict("greet", (), 1, got="`a`", expected="`b`", hint="`c`"))
    assert "`a`" in page and "<code>b</code>" in page and "<code>c</code>" in page


@pytest.mark.parametrize(("verdict", "border"), [(RIGHT, "solid"), (WRONG, "dashed")], ids=["right", "wrong"])
def test_html_needs_no_colour_to_be_understood(verdict, border):
    assert str(verdict).splitlines()[0] in html(verdict) and f"4px {border} " in html(verdict)


@pytest.mark.parametrize("verdict", [RIGHT, WRONG], ids=["right", "wrong"])
def test_html_sets_no_text_colour(verdict):
    styles = html(verdict).replace('"', ";").split(";")
    assert not [style for style in styles if style.strip().startswith("color")]


@pytest.mark.parametrize("verdict", [RIGHT, WRONG], ids=["right", "wrong"])
def test_html_has_a_row_for_each_line_of_the_text(verdict):
    assert html(verdict).count('scope="row"') == len(str(verdict).splitlines()) - 1


def test_a_notebook_gets_the_verdict_as_data_too():
    bundle = WRONG._repr_mimebundle_(include=None, exclude=None)
    data = {"right": ["it greets"], "steps": 2, "got": "Oi!", "expected": "Good day."}
    data["hint"] = "Say it to your grandmother."
    assert json.loads(json.dumps(bundle[MEDIA_TYPE])) == {"check:greet": data}


def test_a_notebook_gets_the_verdict_as_plain_text_too():
    assert WRONG._repr_mimebundle_()["text/plain"] == str(WRONG)


def test_a_right_verdict_has_no_mistake_in_its_data():
    assert RIGHT.to_dict() == {"right": ["it greets", "politely"], "steps": 2}


@pytest.mark.parametrize(
    ("error", "got", "hint"),
    [
        (KeyError("name"), "KeyError: 'name'", "No keys are needed."),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero", "The message says"),
        (ValueError("x" * 5000), "ValueError: xxx", "The message says"),
    ],
)
def test_an_error_of_a_learners_code_is_what_a_check_got(error, got, hint):
    verdict = greet(raising(error))
    assert (verdict.got[: len(got)], verdict.hint[: len(hint)], verdict.right) == (got, hint, ())


def test_a_long_error_message_is_shortened():
    assert len(greet(raising(ValueError("x" * 5000))).got) < 250


@pytest.mark.parametrize("value", [None, "a text", 3, ...])
def test_a_value_that_is_not_a_function_is_refused(value):
    assert greet(value).got == f"{shorten(value)}, which is not a function"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_the_check(error):
    with pytest.raises(error):
        greet(raising(error()))


def never_ending():
    while True:
        threading.Event().wait(0.01)


@pytest.fixture
def late():
    """The verdict on a call that does not end, and the threads that it left."""
    before = set(threading.enumerate())
    with pytest.raises(Wrong) as wrong:
        call(never_ending, expected="an end", seconds=0.1, late="Count the rounds.")
    return wrong.value, set(threading.enumerate()) - before


def test_a_call_that_does_not_end_is_given_up(late):
    wrong, _ = late
    got = "nothing after 0.1 s: the call had not ended"
    assert (wrong.got, wrong.expected, wrong.hint) == (got, "an end", "Count the rounds.")


def test_a_loop_that_was_given_up_is_ended(late):
    _, threads = late
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_a_sleep_is_given_up_too():
    with pytest.raises(Wrong, match="had not ended"):
        call(time.sleep, 3600, expected="an end", seconds=0.1)


def test_an_error_is_the_cause_of_its_verdict():
    with pytest.raises(Wrong) as wrong:
        call(raising(KeyError("name")), expected="no error")
    assert isinstance(wrong.value.__cause__, KeyError)


def test_a_timeout_of_a_learners_own_is_an_error():
    assert greet(raising(TimeoutError("too slow"))).got == "TimeoutError: too slow"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('say "hi"\n', 'say "hi"\n'),
        (["a", 1], "['a', 1]"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 197 + "..."),
    ],
    ids=["text", "list", "200", "201"],
)
def test_a_value_is_shortened_and_a_text_kept_as_it_is(value, text):
    assert shorten(value) == text
