# SPDX-License-Identifier: Apache-2.0
"""Everything the end-to-end and interop tests share: the daemon, its peers and its oracles."""
