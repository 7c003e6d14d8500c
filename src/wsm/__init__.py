"""wsm, the WhatsApp Session Manager: the fleet between WAHA and the people who answer customers."""

__version__ = "0.1.0"
