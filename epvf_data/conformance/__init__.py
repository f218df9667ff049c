"""Does an environment keep the rules that everything else relies on?"""

from epvf_data.conformance.check import Finding, check_env

__all__ = ["Finding", "check_env"]
