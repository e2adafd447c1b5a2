// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/change_contexts.h"

#include <algorithm>

#include "engine/values/layout.h"

namespace engine {

nbd::MetaContexts change_contexts_of(const qcow::Chain& chain, size_t first,
                                     const std::vector<Ancestor>& ancestors) {
  std::vector<nbd::Ancestor> layers;
  for (size_t index = first; index < chain.layer_count(); ++index) {
    const qcow::Layer& layer = chain.layer(index);
    const auto known = std::ranges::find_if(ancestors, [&](const Ancestor& ancestor) {
      return ancestor.image_id + ".qcow2" == layer.name();
    });
    layers.push_back(
        {known == ancestors.end() ? std::string() : known->job_id, layer.header().virtual_size});
  }
  return nbd::change_contexts(layers);
}

}  // namespace engine
