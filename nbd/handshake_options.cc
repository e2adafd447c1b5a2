// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "io/log.h"
#include "nbd/handshake.h"
#include "nbd/refusal.h"

/// The options of the handshake, one function each. Spec: docs/nbd-support.md, "Options".
namespace nbd {
namespace {

void check_no_data(const Bytes& data, std::string_view option) {
  if (!data.empty()) throw ProtocolError(fmt::format("{} takes no data", option));
}

}  // namespace

io::Task<Handshake::Next> Handshake::answer(OptionHeader header, Bytes& reply) {
  const Option option = header.option;
  if (option == Option::export_name) {
    require_tls_before(option);
    co_await enter_by_name(reply);  // can return no error: what it throws drops the connection
    co_return Next::transmission;
  }
  if (option == Option::abort) {
    append_reply(reply, option, OptionReply::ack, {});
    co_return Next::end;
  }
  try {
    co_return co_await answer_or_refuse(option, reply);
  } catch (const ProtocolError& refusal) {
    reply.clear();
    append_text_reply(reply, option, refusal.reply(), refusal.what());
  }
  co_return Next::option;
}

io::Task<Handshake::Next> Handshake::answer_or_refuse(Option option, Bytes& reply) {
  if (admission_.draining) {
    throw ProtocolError("server is shutting down", OptionReply::err_shutdown);
  }
  require_tls_before(option);
  switch (option) {
    case Option::list:
      check_no_data(data_, "LIST");
      co_return Next::list;
    case Option::info:
    case Option::go:
      co_return co_await answer_info(option, reply);
    case Option::structured_reply:
      answer_structured_reply(reply);
      break;
    case Option::list_meta_context:
    case Option::set_meta_context:
      co_await answer_meta_context(option, reply);
      break;
    case Option::starttls:
      co_return answer_starttls(reply);
    case Option::extended_headers:
      answer_extended_headers(reply);
      break;
    default:
      throw ProtocolError(fmt::format("option {} is not supported", number_of(option)),
                          OptionReply::err_unsup);
  }
  co_return Next::option;
}

/// O3: a few at a time, so that clients that do not read hold little, however many exports there
/// are.
io::Task<void> Handshake::send_list() {
  constexpr size_t kBytesAtOnce = 16 << 10;
  Bytes reply;
  const auto append = [&reply](const std::string& name, const std::string& description) {
    append_reply(reply, Option::list, OptionReply::server, encode_server(name, description));
  };
  std::shared_ptr<Export> exported = visible_.next_after({});
  while (exported) {
    append(exported->name(), exported->description());
    if (reply.size() >= kBytesAtOnce) {
      co_await send(reply);
      reply.clear();
    }
    exported = visible_.next_after(exported->name());
  }
  for (std::string last;;) {
    const std::vector<OfferedExport> page = co_await visible_.list_source_after(last);
    if (page.empty()) break;
    for (const OfferedExport& listed : page) append(listed.name, listed.description);
    co_await send(reply);
    reply.clear();
    restart_patience();  // a client that reads slowly has what is sent to show for it
  }
  append_reply(reply, Option::list, OptionReply::ack, {});
  co_await send(reply);
}

io::Task<Handshake::Next> Handshake::answer_info(Option option, Bytes& reply) {
  const InfoRequest request = InfoRequest::decode(data_, option == Option::go ? "GO" : "INFO");
  const std::shared_ptr<Export> exported = co_await find_export(request.export_name);
  check_admission();
  if (option == Option::go) {
    enter(take_place(*exported));
  } else if (const std::optional<Refusal> refusal = exported->connect_refusal()) {
    throw ProtocolError(refusal->text, OptionReply::err_policy);
  }
  const auto inform = [&](const Bytes& data) {
    append_reply(reply, option, OptionReply::info, data);
  };
  inform(encode_info_export(exported->size(), exported->transmission_flags(rules_for(*exported))));
  if (request.wants(Info::name) || request.export_name != exported->name()) {
    inform(encode_info_text(Info::name, exported->name()));
  }
  if (request.wants(Info::description)) {
    inform(encode_info_text(Info::description, exported->description()));
  }
  inform(encode_info_block_size(1, exported->preferred_block_size(), kPayloadBytesAdvertised));
  append_reply(reply, option, OptionReply::ack, {});
  co_return option == Option::go ? Next::transmission : Next::option;
}

void Handshake::answer_structured_reply(Bytes& reply) {
  check_no_data(data_, "STRUCTURED_REPLY");
  if (extended_headers_) {  // they replace structured replies, and there is no way back
    throw ProtocolError("extended headers have been negotiated", OptionReply::err_ext_header_reqd);
  }
  structured_replies_ = true;
  append_reply(reply, Option::structured_reply, OptionReply::ack, {});
}

io::Task<void> Handshake::answer_meta_context(Option option, Bytes& reply) {
  const bool set = option == Option::set_meta_context;
  if (set) {  // O15: the earlier set is gone, also when this one fails
    contexts_.clear();
    contexts_export_.clear();
    if (!structured_replies_) throw ProtocolError("structured replies must be negotiated first");
  }
  const MetaContextRequest request = MetaContextRequest::decode(data_);
  const std::shared_ptr<Export> exported = co_await find_export(request.export_name);
  const auto& contexts = exported->contexts();
  const std::vector<size_t> chosen =
      set ? select_contexts(contexts, request.queries) : list_contexts(contexts, request.queries);
  for (const size_t index : chosen) {
    const uint32_t id = set ? static_cast<uint32_t>(index) + 1 : 0;
    if (set) contexts_.push_back({id, index});
    append_reply(reply, option, OptionReply::meta_context,
                 encode_meta_context(id, contexts[index]->name()));
  }
  if (set) contexts_export_ = exported->name();
  append_reply(reply, option, OptionReply::ack, {});
}

void Handshake::answer_extended_headers(Bytes& reply) {
  check_no_data(data_, "EXTENDED_HEADERS");
  structured_replies_ = extended_headers_ = true;
  append_reply(reply, Option::extended_headers, OptionReply::ack, {});
}

io::Task<void> Handshake::enter_by_name(Bytes& reply) {
  if (admission_.draining) throw ProtocolError("EXPORT_NAME while the server is shutting down");
  if (extended_headers_) throw ProtocolError("EXPORT_NAME after EXTENDED_HEADERS");
  const std::string name = decode_export_name(data_);
  const std::shared_ptr<Export> exported = co_await find_export(name);
  check_admission();
  enter(take_place(*exported));
  reply = encode_export_name_reply(exported->size(),
                                   exported->transmission_flags(rules_for(*exported)), !no_zeroes_);
}

/// A client that is refused for the number of connections opens nothing.
io::Task<std::shared_ptr<Export>> Handshake::find_export(std::string name) {
  check_admission();
  std::shared_ptr<Export> exported;
  std::string trouble;
  patience_.reset();  // it is the client's: what takes long now is the server
  try {
    exported = co_await visible_.open(name);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::warning, "nbd: export \"{}\" could not be opened for {}: {}", name,
            transport_.peer(), failure.what());
    trouble = without_paths(failure.what());
  }
  restart_patience();
  if (!trouble.empty()) {
    throw ProtocolError(fmt::format("export \"{}\" could not be opened: {}", name, trouble),
                        OptionReply::err_platform);
  }
  if (!exported && may_need_tls()) {  // T2: it may be there for a client that says who it is
    throw ProtocolError(fmt::format("TLS is required for export \"{}\"", name),
                        OptionReply::err_tls_reqd);
  }
  if (!exported) {
    throw ProtocolError(fmt::format("export \"{}\" does not exist", name),
                        OptionReply::err_unknown);
  }
  co_return exported;
}

void Handshake::check_admission() const {
  if (admission_.connections >= admission_.connections_max) {
    throw ProtocolError(
        fmt::format("server already has {} connections", admission_.connections_max),
        OptionReply::err_policy);
  }
}

ConnectionPlace Handshake::take_place(Export& exported) const {
  std::variant<ConnectionPlace, Refusal> place = exported.connect();
  if (const Refusal* refusal = std::get_if<Refusal>(&place)) {
    throw ProtocolError(refusal->text, OptionReply::err_policy);
  }
  return std::move(std::get<ConnectionPlace>(place));
}

/// O18: contexts belong to the export that they were selected for.
Negotiation Handshake::rules_for(const Export& exported) const {
  const bool has_contexts = !contexts_.empty() && contexts_export_ == exported.name();
  return {structured_replies_, extended_headers_, has_contexts};
}

void Handshake::enter(ConnectionPlace place) {
  const Negotiation rules = rules_for(place.exported());
  if (!rules.has_contexts) contexts_.clear();
  outcome_.emplace(Negotiated{AdmissionSlot(admission_), std::move(place), rules, contexts_});
}

}  // namespace nbd
