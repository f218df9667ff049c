"""Does a part of the user's own keep the rules that everything else relies on?"""

from epvf_data.conformance.check import check_env
from epvf_data.conformance.critics import check_critic
from epvf_data.conformance.finding import Finding
from epvf_data.conformance.policies import check_policy

__all__ = ["Finding", "check_critic", "check_env", "check_policy"]
