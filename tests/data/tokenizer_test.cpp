#include "data/tokenizer.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "data/tokenizer_json.h"
#include "data/utf8.h"
#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

// A small but non-trivial text: sentences of a few words with numbers.
std::vector<std::string> lines(int n) {
  const std::vector<std::string> words = {
      "the",   "memory", "of",   "a",       "model",        "decays", "with",  "gates",
      "while", "tokens", "pass", "through", "    indented", "naïve",  "señor", "x86_64"};
  std::vector<std::string> out;
  uint64_t state = 1;
  for (int i = 0; i < n; ++i) {
    std::string line;
    for (int w = 0; w < 8; ++w) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      line += words[(state >> 33) % words.size()] + " ";
    }
    out.push_back(line + std::to_string(i));
  }
  return out;
}

Tokenizer train(const TokenizerTraining& options) {
  const auto text = lines(300);
  size_t i = 0;
  return Tokenizer::train(options, [&](std::string& line) {
    if (i == text.size()) return false;
    line = text[i++];
    return true;
  });
}

const std::vector<std::string>& hard_texts() {
  static const std::vector<std::string> texts = {
      "the memory of a model",
      "",
      " ",
      "\n",
      "  leading and trailing  ",
      "tabs\tand\n\n\nnewlines \n with  runs   of spaces    x",
      "\r\nwindows\r\n",
      "unseen: Ελληνικά, 日本語, \xf0\x9f\xa6\x8b, \xe2\x82\xac",
      std::string("nul \0 inside", 12),
      "the space mark itself: \xe2\x96\x81 and \xe2\x96\x81\xe2\x96\x81twice \xe2\x96\x81",
      "</s> <unk> <0x41> <s> are just text",
      "replacement \xef\xbf\xbd character",
      "e\xcc\x81 decomposed, \xef\xac\x81 ligature, \xc2\xa0 no-break, \xe3\x80\x80 wide space",
  };
  return texts;
}

// Unigram cannot make as many pieces as BPE from the small text.
class TokenizerTypes : public ::testing::TestWithParam<TokenizerTraining> {};

TEST_P(TokenizerTypes, LosesNothing) {
  const Tokenizer tokenizer = train(GetParam());
  EXPECT_EQ(tokenizer.vocab_size(), GetParam().vocab_size);
  WordCache cache;
  for (const std::string& text : hard_texts()) {
    const auto ids = tokenizer.encode(text);
    EXPECT_EQ(tokenizer.decode(ids), text);
    EXPECT_EQ(tokenizer.encode(text, &cache), ids) << "cold cache: " << text;
    EXPECT_EQ(tokenizer.encode(text, &cache), ids) << "warm cache: " << text;
    for (const int32_t id : ids) {
      EXPECT_NE(id, tokenizer.eos_id()) << text;
      EXPECT_NE(id, 0) << "unknown token in: " << text;
    }
  }
}

TEST_P(TokenizerTypes, EveryCharacterRoundTrips) {
  const Tokenizer tokenizer = train(GetParam());
  std::string text;
  for (uint32_t c = 0; c < 0x3000; ++c) {  // all characters of one and two bytes, and some of three
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else if (c < 0x800) {
      text += {static_cast<char>(0xc0 | (c >> 6)), static_cast<char>(0x80 | (c & 63))};
    } else {
      text += {static_cast<char>(0xe0 | (c >> 12)), static_cast<char>(0x80 | ((c >> 6) & 63)),
               static_cast<char>(0x80 | (c & 63))};
    }
  }
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

INSTANTIATE_TEST_SUITE_P(Models, TokenizerTypes,
                         ::testing::Values(TokenizerTraining{.vocab_size = 340},
                                           TokenizerTraining{.vocab_size = 300,
                                                             .model_type = "unigram"}),
                         [](const auto& test) { return test.param.model_type; });

// SentencePiece itself, the truth for encoding word by word and with a cache.
std::vector<int> plain_sentencepiece(const std::string& model, const std::string& text) {
  sentencepiece::SentencePieceProcessor processor;
  EXPECT_TRUE(processor.LoadFromSerializedProto(model).ok());
  return processor.EncodeAsIds(text);
}

TEST_P(TokenizerTypes, EncodesAsSentencePieceDoes) {
  const Tokenizer tokenizer = train(GetParam());
  std::string all;
  for (const std::string& line : lines(50)) all += line + "  \n\n";
  std::vector<std::string> texts = hard_texts();
  texts.push_back(all);
  for (const std::string& text : texts) {
    // SentencePiece treats its space mark as a space; we keep it.
    if (text.find("\xe2\x96\x81") != std::string::npos) continue;
    EXPECT_EQ(tokenizer.encode(text), plain_sentencepiece(tokenizer.model(), text)) << text;
  }
}

TEST(Tokenizer, TakesModelsFromElsewhere) {
  const auto text = lines(300);
  class Lines : public sentencepiece::SentenceIterator {
   public:
    explicit Lines(const std::vector<std::string>& all) : all_(all) {}
    bool done() const override { return i_ == all_.size(); }
    void Next() override { ++i_; }
    const std::string& value() const override { return all_[i_]; }
    sentencepiece::util::Status status() const override { return {}; }

   private:
    const std::vector<std::string>& all_;
    size_t i_ = 0;
  };
  // SentencePiece's defaults (normalisation, a leading space, no bytes), and one default each
  // beside settings under which text is encoded word by word.
  const std::vector<std::vector<std::pair<std::string, std::string>>> kinds{
      {{"vocab_size", "60"}},
      {{"normalization_rule_name", "identity"}, {"remove_extra_whitespaces", "false"}},
      {{"normalization_rule_name", "identity"}, {"add_dummy_prefix", "false"}},
      {{"remove_extra_whitespaces", "false"}, {"add_dummy_prefix", "false"}}};
  for (const auto& kind : kinds) {
    Lines iterator(text);
    std::unordered_map<std::string, std::string> options{{"vocab_size", "340"},
                                                         {"byte_fallback", "true"},
                                                         {"model_type", "bpe"},
                                                         {"minloglevel", "2"}};
    for (const auto& [name, value] : kind) options[name] = value;
    if (&kind == &kinds.front()) options.erase("byte_fallback");
    std::string model;
    const auto status = sentencepiece::SentencePieceTrainer::Train(options, &iterator, &model);
    ASSERT_TRUE(status.ok()) << status.ToString();
    const Tokenizer tokenizer = Tokenizer::from_model(model);
    for (const std::string sample :
         {"the memory of a model", "a  b", "gates", "the \xef\xac\x81 of  a  "}) {
      WordCache cache;
      EXPECT_EQ(tokenizer.encode(sample, &cache), plain_sentencepiece(model, sample))
          << sample << " by model " << &kind - kinds.data();
    }
    EXPECT_EQ(tokenizer.decode(tokenizer.encode("the memory of a model")), "the memory of a model");
    EXPECT_EQ(tokenizer.eos_id(), 2);
    EXPECT_FALSE(tokenizer.by_words());
    EXPECT_FALSE(format_tokenizer_json(tokenizer, -1));
  }
}

std::string utf8(uint32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  const auto tail = [c](int shift) { return static_cast<char>(0x80 | ((c >> shift) & 63)); };
  if (c < 0x800) return {static_cast<char>(0xc0 | (c >> 6)), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xe0 | (c >> 12)), tail(6), tail(0)};
  return {static_cast<char>(0xf0 | (c >> 18)), tail(12), tail(6), tail(0)};
}

// Lines of the characters first .. first + 39, with the text `rare` once every `every` lines.
std::vector<std::string> script(uint32_t first, const std::string& rare, int every) {
  std::vector<std::string> out;
  uint64_t state = first;
  for (int i = 0; i < 150; ++i) {
    std::string line;
    for (int j = 0; j < 50; ++j) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      line += utf8(first + (state >> 33) % 40);
    }
    if (every > 0 && i % every == 0) line += rare + utf8(first);
    out.push_back(line);
  }
  return out;
}

// A tokenizer of any size, trained on any kind of text, keeps every character of every other kind,
// and none costs more tokens than it has bytes.
TEST(Tokenizer, LosesNothingWhateverItWasTrainedOn) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> corpora = {
      {"Chinese, few spaces", script(0x4e00, " ", 150)},
      {"Chinese, no space", script(0x4e00, "", 0)},
      {"Japanese", script(0x3042, " \xe6\x97\xa5", 100)},
      {"Thai", script(0xe01, " ", 60)},
      {"Arabic", script(0x621, " ", 2)},
      {"emoji", script(0x1f600, "\xe2\x80\x8d", 3)},
      {"code with tabs", script('A', "\t\t{ x;\r", 1)},
      {"marks of SentencePiece", script('a', "\xe2\x96\x81 \xe2\x96\x85", 1)},
      {"combining", script(0x300, "e ", 2)},
      {"control bytes", script(0x1, std::string(" \0", 2), 1)},
  };
  std::vector<std::string> texts = hard_texts();
  for (const auto& [name, corpus] : corpora) {
    std::string text;
    for (size_t i = 0; i < 20; ++i) text += corpus[i] + (i % 3 == 0 ? "\r\n" : "\n");
    texts.push_back(text);
  }
  const std::vector<TokenizerTraining> kinds = {
      {.vocab_size = 310, .character_coverage = 0.98},
      {.vocab_size = 340},
      {.vocab_size = 400, .character_coverage = 1},
      {.vocab_size = 310, .model_type = "unigram", .character_coverage = 0.98},
      {.vocab_size = 330, .model_type = "unigram"},
  };
  for (const auto& [name, corpus] : corpora) {
    for (const TokenizerTraining& kind : kinds) {
      size_t i = 0;
      const Tokenizer tokenizer = Tokenizer::train(kind, [&, &all = corpus](std::string& line) {
        if (i < all.size()) line = all[i];
        return i++ < all.size();
      });
      EXPECT_EQ(tokenizer.vocab_size(), kind.vocab_size);
      WordCache cache;
      for (const std::string& text : texts) {
        const auto ids = tokenizer.encode(text, &cache);
        EXPECT_EQ(tokenizer.decode(ids), text)
            << name << ", " << kind.model_type << " " << kind.vocab_size;
        EXPECT_LE(ids.size(), text.size());
      }
      for (const char* one : {" ", "\n", "\t", "\r"}) {
        EXPECT_EQ(tokenizer.encode(one).size(), 1u) << name << ": byte " << int{one[0]};
      }
    }
  }
}

// SentencePiece skips lines that contain its own U+2585.
TEST(Tokenizer, TrainsOnLinesThatHoldMarksOfSentencePiece) {
  size_t i = 0;
  const Tokenizer tokenizer = Tokenizer::train({.vocab_size = 280}, [&](std::string& line) {
    line = "hello \xe2\x96\x85world\xe2\x96\x81hello";
    return i++ < 50;
  });
  EXPECT_EQ(tokenizer.encode("hello").size(), 1u);
}

TEST(Tokenizer, CompressesWhatItWasTrainedOn) {
  const Tokenizer tokenizer = train({.vocab_size = 340});
  const std::string text = "the memory of a model decays with gates";
  EXPECT_LE(tokenizer.encode(text).size(), text.size() / 2);
  EXPECT_EQ(tokenizer.encode("\n\n").size(), 2u);
}

TEST(Tokenizer, SaveLoadAndIdentity) {
  TemporaryFolder folder;
  const Tokenizer tokenizer = train({.vocab_size = 340});
  testing::write_bytes(folder / "t.model", tokenizer.model());
  const Tokenizer loaded = Tokenizer::load(folder / "t.model");
  EXPECT_EQ(loaded.hash(), tokenizer.hash());
  EXPECT_EQ(loaded.eos_id(), 1);
  EXPECT_EQ(loaded.encode("the memory"), tokenizer.encode("the memory"));
  EXPECT_EQ(train({.vocab_size = 340}).hash(), tokenizer.hash()) << "training is deterministic";
  EXPECT_NE(train({.vocab_size = 330}).hash(), tokenizer.hash());
}

TEST(Tokenizer, UserSymbolsAreOneToken) {
  const Tokenizer tokenizer = train({.vocab_size = 340, .user_symbols = {"<|user|>", "x\ty"}});
  EXPECT_EQ(tokenizer.encode("<|user|>").size(), 1u);
  EXPECT_EQ(tokenizer.encode("a<|user|><|user|>b").size(), 4u);
  for (const std::string& text : hard_texts()) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
  expect_error([] { train({.user_symbols = {"a,b"}}); }, {"'a,b'", "comma"});
}

TEST(Tokenizer, MistakesAreErrors) {
  TemporaryFolder folder;
  expect_error([&] { Tokenizer::load(folder / "no.model"); }, {"no.model", "No such file"});
  testing::write_bytes(folder / "bad.model", "this is text");
  expect_error([&] { Tokenizer::load(folder / "bad.model"); }, {"bad.model", "SentencePiece"});
  // Advice by cause; SentencePiece's own message, with file and line, comes last.
  const std::string small = testing::failure_of([] { train({.vocab_size = 50000}); });
  EXPECT_LT(small.find("lower the vocabulary size"), small.find("trainer_interface.cc")) << small;
  expect_error([] { train({.vocab_size = 50000}); }, {"50000", "supports at most", "or add text"});
  expect_error(
      [] {
        bool more = true;
        Tokenizer::train({}, [&](std::string& line) {
          line = "a";
          return std::exchange(more, false);
        });
      },
      {"the minimum is 300", "add text"});
  const auto many_characters = [] {
    const auto text = script(0x4e00, "", 0);
    size_t i = 0;
    Tokenizer::train({.vocab_size = 290}, [&](std::string& line) {
      if (i < text.size()) line = text[i];
      return i++ < text.size();
    });
  };
  expect_error(many_characters, {"raise --vocab-size", "need 300", "--character-coverage"});
  EXPECT_EQ(testing::failure_of(many_characters).find("small"),
            testing::failure_of(many_characters).find("smaller than required_chars"));
  expect_error([] { train({.user_symbols = {"\xe2\x96\x81x"}}); }, {"U+2581"});
  expect_error([] { Tokenizer::train({}, [](std::string&) { return false; }); },
               {"no text to train"});
  const Tokenizer tokenizer = train({.vocab_size = 340});
  expect_error([&] { tokenizer.decode({340}); }, {"token 340", "340"});
  expect_error([&] { tokenizer.decode({-1}); }, {"token -1"});
}

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  const Tokenizer tokenizer = train({.vocab_size = 340});
  for (const std::string& text : hard_texts()) {
    StreamDecoder decoder(tokenizer);
    std::string whole;
    for (const int32_t id : tokenizer.encode(text)) {
      const std::string part = decoder.push(id);
      EXPECT_EQ(find_invalid_utf8(part), std::string::npos) << text;
      whole += part;
    }
    EXPECT_EQ(whole, text);
    EXPECT_EQ(decoder.finish(), "");
  }
  StreamDecoder decoder(tokenizer);
  const auto butterfly = tokenizer.encode("\xf0\x9f\xa6\x8b");
  ASSERT_EQ(butterfly.size(), 4u);
  EXPECT_EQ(decoder.push(butterfly[0]), "");
  EXPECT_EQ(decoder.push(butterfly[1]), "");
  EXPECT_EQ(decoder.push(tokenizer.encode("x")[0]), "\xef\xbf\xbd\xef\xbf\xbdx");
  EXPECT_EQ(decoder.push(butterfly[0]), "");
  EXPECT_EQ(decoder.finish(), "\xef\xbf\xbd");
}

TEST(Utf8, KnowsValidFromInvalid) {
  constexpr size_t kValid = std::string::npos;
  const std::vector<std::pair<std::string, size_t>> cases = {
      {"", kValid},
      {"plain ascii of some length", kValid},
      {"\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf", kValid},
      {"\xed\x9f\xbf\xee\x80\x80", kValid},
      {"\x80", 0},
      {"12345678\xff", 8},
      {"ab\xc0\x80", 2},        // overlong NUL
      {"ab\xc1\xbf", 2},        // overlong
      {"\xe0\x9f\xbf", 0},      // overlong
      {"\xed\xa0\x80", 0},      // surrogate
      {"\xf0\x8f\xbf\xbf", 0},  // overlong
      {"\xf4\x90\x80\x80", 0},  // above U+10FFFF
      {"\xf5\x80\x80\x80", 0},
      {"abc\xe2\x82", 3},  // cut
      {"abc\xe2\x82 tail of text", 3},
  };
  for (const auto& [text, bad] : cases) {
    EXPECT_EQ(find_invalid_utf8(text), bad) << text;
    EXPECT_EQ(find_invalid_utf8(replace_invalid_utf8(text)), kValid);
  }
  EXPECT_EQ(replace_invalid_utf8("a\xff\xe2\x82z"), "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz");
}

}  // namespace
}  // namespace rodimus
