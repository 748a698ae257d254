// An unpacked package on a device without Python: ONNX Runtime's C++ API, a self-test, then answers.
//
//     classify FOLDER [PICTURE.ppm …]
//
// Nothing is answered unless the golden inputs give the golden outputs here.

#include <onnxruntime_cxx_api.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <numeric>

#include "contract.hpp"
#include "framing.hpp"

namespace {

// With `exact` the graph is meant literally: no integer kernels of this CPU, no fusions that round otherwise.
Ort::SessionOptions session_options(const Contract& c) {
    Ort::SessionOptions options;
    if (c.exact) {
        options.AddConfigEntry("session.disable_quant_qdq", "1");
        options.SetGraphOptimizationLevel(GraphOptimizationLevel::ORT_ENABLE_BASIC);
        options.DisableMemPattern();
    }
    return options;
}

class Classifier {
public:
    Classifier(const std::string& folder, const Contract& contract)
        : c(contract), env(ORT_LOGGING_LEVEL_FATAL, "dlx"),
          session(env, (folder + "/model.onnx").c_str(), session_options(contract)) {}

    // float32[count, classes] for uint8[count, height, width, channels]; a fixed batch is filled with its last image.
    std::vector<float> logits(const uint8_t* images, int64_t count) {
        const int64_t size = int64_t(c.height) * c.width * c.channels, step = c.batch ? c.batch : count;
        std::vector<float> all;
        for (int64_t start = 0; start < count; start += step) {
            std::vector<uint8_t> block(size_t(step * size));
            for (int64_t i = 0; i < step; ++i)
                std::copy_n(images + std::min(start + i, count - 1) * size, size, block.begin() + i * size);
            const std::vector<float> answers = run(block, step);
            const int64_t used = std::min(step, count - start) * c.classes;
            all.insert(all.end(), answers.begin(), answers.begin() + used);
        }
        return all;
    }

private:
    std::vector<float> run(std::vector<uint8_t>& block, int64_t count) {
        const std::array<int64_t, 4> shape{count, c.height, c.width, c.channels};
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const auto input =
            Ort::Value::CreateTensor<uint8_t>(memory, block.data(), block.size(), shape.data(), shape.size());
        const char *in = "images", *out = "logits";
        const auto answers = session.Run(Ort::RunOptions{nullptr}, &in, &input, 1, &out, 1);
        const auto seen = answers[0].GetTensorTypeAndShapeInfo().GetShape();
        if (seen != std::vector<int64_t>{count, c.classes}) throw std::runtime_error("the model gives another shape");
        const float* first = answers[0].GetTensorData<float>();
        return {first, first + count * c.classes};
    }

    const Contract& c;
    Ort::Env env;
    Ort::Session session;
};

template <class T>
std::vector<T> read_all(const std::string& path, int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    std::ifstream file(path, std::ios::binary);
    if (!file.read(reinterpret_cast<char*>(values.data()), std::streamsize(values.size() * sizeof(T))) ||
        file.peek() != EOF)
        throw std::runtime_error(path + ": is missing, or of another length than the contract says");
    return values;
}

int best(const float* logits, int64_t classes) { return int(std::max_element(logits, logits + classes) - logits); }

// The package's self-test: every golden logit within its tolerance, and the same class first.
void check_golden(Classifier& classifier, const std::string& folder, const Contract& c) {
    const auto images = read_all<uint8_t>(folder + "/golden.images", c.golden * c.height * c.width * c.channels);
    const auto golden = read_all<float>(folder + "/golden.logits", c.golden * c.classes);
    const auto logits = classifier.logits(images.data(), c.golden);
    double furthest = 0;
    for (size_t i = 0; i < golden.size(); ++i) {
        const double off = std::abs(double(logits[i]) - golden[i]);
        if (!(off <= c.atol + c.rtol * std::abs(golden[i])))  // NaN is not close to anything
            throw std::runtime_error("self-test failed: golden input " + std::to_string(i / size_t(c.classes)) +
                                     " is off by " + std::to_string(off));
        furthest = std::max(furthest, off);
    }
    for (int64_t i = 0; i < c.golden; ++i)
        if (best(&logits[size_t(i * c.classes)], c.classes) != best(&golden[size_t(i * c.classes)], c.classes))
            throw std::runtime_error("self-test failed: golden input " + std::to_string(i) + " has another class");
    std::fprintf(stderr, "self-test passed: %lld golden inputs, at most %g off\n", (long long)c.golden, furthest);
}

// A binary PPM (P6) or PGM (P5) of 8 bits; of a camera, take its buffer instead, colours red first.
Picture read_picture(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    int width = 0, height = 0, most = 0;
    if (!(file >> kind >> width >> height >> most) || (kind != "P6" && kind != "P5") || most != 255 || width < 1 ||
        height < 1 || int64_t(width) * height > 89478485)
        throw std::runtime_error(path + ": must be a binary PPM or PGM of 8 bits without comments");
    file.get();
    Picture picture{width, height, kind == "P6" ? 3 : 1, {}};
    picture.pixels.resize(size_t(width) * height * picture.channels);
    if (!file.read(reinterpret_cast<char*>(picture.pixels.data()), std::streamsize(picture.pixels.size())))
        throw std::runtime_error(path + ": is cut short");
    return picture;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return std::cerr << "usage: classify FOLDER [PICTURE.ppm …]\n", 2;
    try {
        const std::string folder = argv[1];
        const Contract contract = read_contract(folder + "/contract.txt");
        Classifier classifier(folder, contract);
        check_golden(classifier, folder, contract);
        for (int i = 2; i < argc; ++i) {
            const auto pixels = framed(read_picture(argv[i]), contract);
            const auto logits = classifier.logits(pixels.data(), 1);
            const int k = best(logits.data(), contract.classes);
            std::printf("%s\t%s\t%.9g\n", argv[i], contract.labels[size_t(k)].c_str(), double(logits[size_t(k)]));
        }
    } catch (const std::exception& e) {
        return std::cerr << "error: " << e.what() << "\n", 5;
    }
}
