"""Numbers that are written in two ways are one person's."""

import pytest

from wsm.core.phones import other_form


@pytest.mark.parametrize(
    ("phone", "other"),
    [
        ("5511960000001", "551160000001"),
        ("551160000001", "5511960000001"),
        ("5585988887777", "558588887777"),
        ("558599887777", "5585999887777"),
        ("5585999887777", "558599887777"),
    ],
)
def test_a_brazilian_mobile_has_a_form_with_nine_and_one_without(phone: str, other: str) -> None:
    assert other_form(phone) == other
    assert other_form(other) == phone


@pytest.mark.parametrize(
    "phone",
    [
        "551130000001",  # a landline
        "5511930000001",  # a mobile number that never had eight digits: they would be a landline's
        "5501960000001",  # no area has a 0
        "5510960000001",
        "55119600000012",
        "55119600000",
        "541160000001",  # another country's
        "4915112345678",
        "+5511960000001",
        "",
    ],
)
def test_every_other_number_has_one_form(phone: str) -> None:
    assert other_form(phone) is None
