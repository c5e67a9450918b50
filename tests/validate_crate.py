"""The validator of RO-Crates without a network: the vocabulary comes from the package `rocrate`, which brings a copy.

    .validators/bin/python tests/validate_crate.py FOLDER

Left out are the two checks that ask whether the vocabulary's own address answers.
"""

import email.message
import importlib.resources
import sys
import urllib.request
import urllib.response

from rocrate_validator.cli.main import cli

ADDRESS = "https://w3id.org/ro/crate/1.1/context"
SKIPPED = "ro-crate-1.1_3.1,ro-crate-1.1_3.2"


class Brought(urllib.request.HTTPSHandler):
    """Answers with the copy for the vocabulary's address."""

    def https_open(self, request):
        if request.full_url != ADDRESS:
            return super().https_open(request)
        headers = email.message.Message()
        headers["Content-Type"] = "application/ld+json"
        text = (importlib.resources.files("rocrate") / "data" / "ro-crate.jsonld").open("rb")
        answer = urllib.response.addinfourl(text, headers, ADDRESS, 200)
        answer.msg = "OK"
        return answer


urllib.request.install_opener(urllib.request.build_opener(Brought))
options = ["--profile-identifier", "ro-crate-1.1", "--requirement-severity", "required", "--skip-checks", SKIPPED]
cli(["--no-interactive", "validate", "--no-paging", *options, sys.argv[1]])
